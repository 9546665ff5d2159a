"""A PyTorch DataLoader over a folder of JPEG files, decoded and resized by Pillow (torchvision's way) or by OpenCV.

torchvision itself has no build for every CPU LibTorch; what it does to an image is Pillow's work, done here directly.
"""

import os
import random

import numpy
import torch
from torch.utils.data import DataLoader, Dataset

SIZE = 224


def random_crop(width, height):
    """torchvision's RandomResizedCrop: area 0.05 to 1, aspect 3/4 to 4/3, ten tries."""
    for _ in range(10):
        area = width * height * random.uniform(0.05, 1)
        aspect = random.uniform(3 / 4, 4 / 3)
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def read_with_pil(file, crop, flip):
    from PIL import Image
    image = Image.open(file).convert("RGB")
    box = random_crop(*image.size) if crop else None
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return numpy.asarray(image)


def read_with_opencv(file, crop, flip):
    import cv2
    cv2.setNumThreads(0)
    image = cv2.imread(file, cv2.IMREAD_COLOR)
    if crop:
        left, top, right, bottom = random_crop(image.shape[1], image.shape[0])
        image = image[top:bottom, left:right]
    smaller = image.shape[0] > SIZE  # averages as an antialiased resize does
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    if flip:
        image = cv2.flip(image, 1)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


READERS = {"pil": read_with_pil, "opencv": read_with_opencv}


class Folder(Dataset):
    def __init__(self, path, form, crop, count, flip=True):
        by_class = [sorted(entry.path for entry in os.scandir(folder.path))
                    for folder in sorted(os.scandir(os.path.join(path, "train")), key=lambda entry: entry.name)]
        files = [(files[i], label) for i in range(len(by_class[0])) for label, files in enumerate(by_class)]
        self.files = [files[i % len(files)] for i in range(count)]
        self.read, self.crop, self.flip = READERS[form], crop, flip

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        file, label = self.files[i]
        pixels = self.read(file, self.crop, self.flip and random.random() < 0.5)
        image = torch.from_numpy(numpy.ascontiguousarray(pixels)).permute(2, 0, 1).float()
        return image.div_(127.5).sub_(1), label


class Loading:
    def __init__(self, spec):
        self.spec = spec
        self.loader = DataLoader(Folder(spec["path"], spec["form"], spec["crop"], spec["images"]), batch_size=spec["batch"],
                                 shuffle=True, num_workers=torch.get_num_threads(), persistent_workers=True)

    def run(self):
        for _ in self.loader:
            pass

    def describe(self):
        return {"amount": self.spec["images"] / torch.get_num_threads()}

    def compare(self, tensors):
        wanted = tensors["images"]
        folder = Folder(self.spec["path"], self.spec["form"], False, len(wanted), flip=False)
        found = torch.stack([folder[i][0] for i in range(len(folder))])
        return {"mean difference": (found - wanted).abs().mean().item()}


def make(spec):
    return Loading(spec)
