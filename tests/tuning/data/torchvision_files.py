"""Tiny data sets in the formats in which the public ones lie on the disk. Images of a higher class are brighter."""

from __future__ import annotations

import bz2
import json
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

LABELS = ("ant", "bee")


def write_image(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 9), (value, value, value)).save(file)


def write_dtd(root: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        names = [f"{label}/{part}{index}.jpg" for label in LABELS for index in range(count)]
        for name in names:
            write_image(root / "dtd/dtd/images" / name, 200 if name.startswith("bee") else 50)
        (root / "dtd/dtd/labels").mkdir(exist_ok=True)
        (root / f"dtd/dtd/labels/{part}1.txt").write_text("\n".join(names))


def write_eurosat(root: Path) -> None:
    for target, label in enumerate(LABELS):
        for index in range(10):
            write_image(root / "eurosat/2750" / label / f"{index}.jpg", 50 + 150 * target)


def write_pets(root: Path) -> None:
    for part in ("trainval", "test"):
        lines = []
        for target, label in enumerate(LABELS):
            for index in range(3):
                write_image(root / f"oxford-iiit-pet/images/{label}_{part}{index}.jpg", 50 + 150 * target)
                lines.append(f"{label}_{part}{index} {target + 1} 1 1")
        (root / "oxford-iiit-pet/annotations").mkdir(exist_ok=True)
        (root / f"oxford-iiit-pet/annotations/{part}.txt").write_text("\n".join(lines))


def write_food(root: Path) -> None:
    for part in ("train", "test"):
        listed = {label: [f"{label}/{part}{index}" for index in range(3)] for label in LABELS}
        for target, names in enumerate(listed.values()):
            for name in names:
                write_image(root / f"food-101/images/{name}.jpg", 50 + 150 * target)
        (root / "food-101/meta").mkdir(exist_ok=True)
        (root / f"food-101/meta/{part}.json").write_text(json.dumps(listed))


def write_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    for part in ("train", "val", "test"):
        lines = [f"{part}{target}{index} {label}" for target, label in enumerate(LABELS) for index in range(2)]
        for line in lines:
            write_image(data / "images" / f"{line.split()[0]}.jpg", 200 if line.endswith("bee") else 50)
        (data / f"images_variant_{part}.txt").write_text("\n".join(lines))
    (data / "variants.txt").write_text("\n".join(LABELS))


def write_cars(root: Path) -> None:
    base = root / "stanford_cars"
    for part, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [(f"{index}.jpg", 1 + index % 2) for index in range(4)]
        for name, target in rows:
            write_image(base / f"cars_{part}" / name, 150 * target - 100)
        (base / "devkit").mkdir(exist_ok=True)
        annotations = np.array(rows, dtype=[("fname", object), ("class", object)])
        savemat(base / file, {"annotations": annotations})
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(LABELS, dtype=object)})


def write_mnist(root: Path) -> None:
    folder = root / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        targets = np.arange(count, dtype=np.uint8) % 10
        images = np.broadcast_to(targets[:, None, None] * 20, (count, 28, 28)).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + targets.tobytes())


def write_gtsrb(root: Path) -> None:
    lines = ["Filename;ClassId"]
    for target in range(43):
        write_image(root / f"gtsrb/GTSRB/Training/{target:05d}/0.ppm", 5 * target)
        write_image(root / f"gtsrb/GTSRB/Final_Test/Images/{target}.ppm", 5 * target)
        lines.append(f"{target}.ppm;{target}")
    (root / "gtsrb/GT-final_test.csv").write_text("\n".join(lines))


def write_imagenette(root: Path) -> None:
    for part in ("train", "val"):
        for target, wnid in enumerate(("n01440764", "n02102040")):
            write_image(root / f"imagenette2/{part}/{wnid}/0.jpeg", 50 + 150 * target)


def write_caltech(root: Path) -> None:
    for target, label in enumerate(LABELS):
        for index in range(1, 6):
            write_image(root / f"caltech101/101_ObjectCategories/{label}/image_{index:04d}.jpg", 50 + 150 * target)
    (root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()


def write_sun(root: Path) -> None:
    for target, label in enumerate(LABELS):
        for index in range(5):
            write_image(root / f"SUN397/{label[0]}/{label}/sun_{index}.jpg", 50 + 150 * target)
    (root / "SUN397/ClassName.txt").write_text("/a/ant\n/b/bee\n")


def write_country(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for target, label in enumerate(LABELS):
            write_image(root / f"country211/{part}/{label}/0.jpg", 50 + 150 * target)


def write_sst(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for target, label in enumerate(("negative", "positive")):
            write_image(root / f"rendered-sst2/{part}/{label}/0.png", 50 + 150 * target)


def write_usps(root: Path) -> None:
    for name, count in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        lines = [f"{k % 10 + 1} " + " ".join(f"{i + 1}:{k % 10 / 5 - 1:.4f}" for i in range(256)) for k in range(count)]
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_svhn(root: Path) -> None:
    for part, count in (("train", 20), ("test", 10)):
        digits = np.arange(count) % 10
        pixels = np.broadcast_to(digits * 20, (32, 32, 3, count)).astype(np.uint8)
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": np.where(digits == 0, 10, digits)[:, None]})


def write_stl(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part in ("train", "test"):
        targets = np.array([0, 1, 0, 1], np.uint8)
        (folder / f"{part}_y.bin").write_bytes((targets + 1).tobytes())
        (folder / f"{part}_X.bin").write_bytes(np.repeat(targets * 100 + 50, 3 * 96 * 96).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(LABELS))


def write_flowers(root: Path) -> None:
    """All 102 classes once in every part."""
    folder = root / "flowers-102"
    labels = np.tile(np.arange(1, 103), 3)
    for number, label in enumerate(labels, 1):
        write_image(folder / f"jpg/image_{number:05d}.jpg", 2 * int(label))
    savemat(folder / "imagelabels.mat", {"labels": labels})
    numbers = np.arange(1, 307).reshape(3, 102)
    savemat(folder / "setid.mat", {"trnid": numbers[0], "valid": numbers[1], "tstid": numbers[2]})


def write_cifar(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, targets in (("data_batch_1", [0, 1, 0, 1]), ("test_batch", [1, 0])):
        pixels = np.repeat(np.array(targets, np.uint8)[:, None] * 100 + 50, 3072, axis=1)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": targets}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(LABELS)}))
