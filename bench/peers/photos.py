"""Makes a folder of JPEG files that cost about what photographs cost: FOLDER/train/CLASS/N.jpg, about 500 x 375 pixels.

Noise whose amplitude falls with frequency as it does in photographs, with soft edges; quality 90, about 100 kB a file.
Usage: photos.py FOLDER CLASSES IMAGES_PER_CLASS
"""

import os
import shutil
import sys

import numpy


def texture(generator, height, width, power):
    frequency = numpy.hypot(*numpy.meshgrid(numpy.fft.fftfreq(height), numpy.fft.rfftfreq(width), indexing="ij"))
    frequency[0, 0] = 1
    spectrum = numpy.fft.rfft2(generator.standard_normal((height, width))) / frequency**power
    spectrum[0, 0] = 0
    values = numpy.fft.irfft2(spectrum, (height, width))
    return values / values.std()


def photo(generator):
    height, width = 375 + int(generator.integers(-40, 41)), 500 + int(generator.integers(-60, 61))
    brightness = texture(generator, height, width, 1.1)
    edge = texture(generator, height, width, 1.8) > 0.2
    brightness += 0.8 * edge
    colors = numpy.stack([brightness + 0.35 * texture(generator, height, width, 1.5) for _ in range(3)], -1)
    return numpy.clip(118 + 48 * colors, 0, 255).astype(numpy.uint8)


def write(file, pixels):
    try:
        from PIL import Image
        Image.fromarray(pixels).save(file, quality=90)
    except ImportError:
        import cv2
        cv2.imwrite(file, pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])


def main():
    folder, classes, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if os.path.exists(folder):
        return
    generator = numpy.random.default_rng(1)
    partial = folder + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    for label in range(classes):
        os.makedirs(f"{partial}/train/class_{label}")
        for i in range(count):
            write(f"{partial}/train/class_{label}/{i:04}.jpg", photo(generator))
    os.rename(partial, folder)


if __name__ == "__main__":
    main()
