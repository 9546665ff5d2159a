#!/usr/bin/env bash
# Checks the floors of src/stoa: a file includes only from its own floor and earlier ones, no header includes
# torch/torch.h, and base/ sees no LibTorch. Prints every offending file:line. Usage: scripts/check_layers.sh [SOURCE]
set -euo pipefail

floors=(base tensor ops nn optim dist data metrics train tasks systems cli)
cd "${1:-$(dirname "$0")/../src}"
found=0

refuse() {  # FILE:LINE:INCLUDE REASON
  echo "src/$1  <- $2"
  found=1
}

declare -A rank
for i in "${!floors[@]}"; do rank[${floors[i]}]=$i; done

while IFS=: read -r file line text; do
  floor=${file#stoa/}
  floor=${floor%%/*}
  target=${text#*stoa/}
  target=${target%%/*}
  [[ $file == stoa/*/* && -n ${rank[$floor]:-} ]] || continue  # files beside the floors
  if [[ -z ${rank[$target]:-} ]]; then
    refuse "$file:$line: $text" "'$target' is no floor"
  elif ((rank[$target] > rank[$floor])); then
    refuse "$file:$line: $text" "$floor may not use $target, which comes after it in the list of floors"
  fi
done < <(grep -rnE '^\s*#\s*include\s*[<"]stoa/' stoa --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh')

while IFS= read -r hit; do
  refuse "$hit" "headers include torch/types.h, torch/nn/module.h or ATen/core/Tensor.h instead"
done < <(grep -rnE '^\s*#\s*include\s*[<"]torch/torch\.h' stoa --include='*.h' || true)

while IFS= read -r hit; do
  refuse "$hit" "base knows no LibTorch"
done < <(grep -rnE '^\s*#\s*include\s*[<"](torch|ATen|c10)/' stoa/base || true)

if ((found)); then exit 1; fi
echo "layers: every include of src/stoa points at its own floor or an earlier one"
