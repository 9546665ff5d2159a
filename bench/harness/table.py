"""The one table that bench/run.sh prints."""


def time_text(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def value_text(value, unit):
    return time_text(value) if unit == "s" else f"{value:.3g} {unit}"


def memory_text(row):
    if "peer_memory" not in row:
        return ""
    text = f"{row['ours_memory'] / 1e9:.2f} / {row['peer_memory'] / 1e9:.2f} GB"
    if row.get("memory_aim") is None:
        return text
    share = row["ours_memory"] / row["peer_memory"]
    return f"{text} = {share:.2f}, at most {row['memory_aim']:.3g} {'met' if share <= row['memory_aim'] else 'MISSED'}"


def aim_text(row):
    if row["aim"] is None:
        return ""
    return f"{row['aim']:.3g} {'met' if row['ratio'] >= row['aim'] else 'MISSED'}"


def line(row, previous):
    again = previous is not None and previous["name"] == row["name"]
    peer = row["peer_name"] + (f" ({row['set_up']})" if row.get("set_up") else "")
    share = row.get("roof_share")
    return ["" if again else row["name"], "" if again else value_text(row["ours"], row["unit"]),
            ("* " if row.get("best_peer") else "  ") + peer, value_text(row["peer"], row["unit"]),
            f"{row['ratio']:.2f}" + ("" if row.get("steady", True) else " ~"), aim_text(row),
            "" if again or share is None else f"{100 * share:.0f} %", memory_text(row)]


def table(rows):
    cells = [["work", "ours", "  peer", "peer's", "ratio", "aim", "of roof", "peak memory, ours / peer"]]
    for previous, row in zip([None, *rows], rows):
        cells.append(line(row, previous))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def sent_text(row):
    if row.get("hidden") is not None:
        aim = row["hidden_aim"]
        verdict = "" if aim is None else f" (aim {aim:.3g} {'met' if row['hidden'] >= aim else 'MISSED'})"
        return (f"waits {time_text(max(row['ours_waited'], 0))} for messages, {time_text(max(row['peer_waited'], 0))} without "
                f"overlap: {row['hidden']:.2f} hidden{verdict}")
    if row.get("peer_sent") is None:
        return None
    return f"sends {row['ours_sent'] / 1e6:.2f} MB, {row['peer_name']} {row['peer_sent'] / 1e6:.2f} MB"


def messages(rows):
    """What a process sends and waits for in a repetition, one line each; empty where nothing is sent."""
    lines = [f"{row['name']}: {sent_text(row)}" for row in rows if sent_text(row)]
    return "\n".join(["Messages of a process in a repetition:", *lines]) if lines else ""


NOTES = """Medians of interleaved runs; ratio > 1: ours is faster. * best peer. ~ unsteady: the best times give another ratio, or
others used the CPU; measure again. of roof: share of our time that this machine's fastest matrix product (or copy of
memory) would need for the same products (or bytes)."""
