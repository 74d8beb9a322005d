"""VOC XML sets as the common tools lay them out, made small: each function writes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 160, 120
# One-based and inclusive, as VOC writes it: half-open it is 20 20 80 90.
CAT = ("cat", "21 21 80 90")
DOG = ("dog", "91 31 150 100")


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> Path:
    """Write a small image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image_format = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.new("RGB", size, (90, 120, 60)).save(path, image_format, exif=exif)
    return path


def annotation(
    *objects: tuple[str, str],
    filename: str = "x.jpg",
    size: tuple[object, object] | None = (WIDTH, HEIGHT),
    head: str = "",
) -> str:
    """The text of an annotation file; an object is its class and `xmin ymin xmax ymax`."""
    text = f"{head}<annotation><filename>{filename}</filename>"
    if size is not None:
        text += "<size><width>{}</width><height>{}</height></size>".format(*size)
    for name, box in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
        inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
        text += f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"
    return text + "</annotation>"


def write_pair(
    image: Path, xml: Path, *objects: tuple[str, str], text: str | bytes | None = None
) -> None:
    """Write an image and its annotation file."""
    write_image(image)
    xml.parent.mkdir(parents=True, exist_ok=True)
    data = annotation(*(objects or (CAT,))) if text is None else text
    xml.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))


def write_split(root: Path, name: str, text: str | Sequence[str]) -> Path:
    """Write a list of `ImageSets/Main`."""
    path = root / "ImageSets" / "Main" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else "\n".join(text), encoding="utf-8")
    return path


def make_devkit(root: Path, lists: dict[str, Sequence[str]], suffix: str = ".jpg") -> Path:
    """A folder of `Annotations`, `JPEGImages` and, where `lists` are given, `ImageSets`."""
    for image_id in dict.fromkeys(one for ids in lists.values() for one in ids):
        image = root / "JPEGImages" / f"{image_id}{suffix}"
        write_pair(image, root / "Annotations" / f"{image_id}.xml", CAT, DOG)
    for name, ids in lists.items():
        if name:
            write_split(root, name, list(ids))
    return root


def voc_devkit(root: Path) -> None:
    """VOCdevkit/VOC2007/{Annotations,JPEGImages,ImageSets/Main}."""
    lists = {"train": "a", "val": "b", "trainval": "ab", "test": "c"}
    make_devkit(root / "VOCdevkit" / "VOC2007", {k: tuple(v) for k, v in lists.items()})


def without_lists(root: Path) -> None:
    """{Annotations,JPEGImages}, no lists."""
    make_devkit(root, {"": "abc"})


def two_folders(root: Path) -> None:
    """images/ and annots/."""
    for name in "abc":
        write_pair(root / "images" / f"{name}.png", root / "annots" / f"{name}.xml", CAT, DOG)


def images_at_the_top(root: Path) -> None:
    """*.jpg and xmls/."""
    for name in "abc":
        write_pair(root / f"{name}.jpg", root / "xmls" / f"{name}.xml", CAT, DOG)


def labelimg(root: Path) -> None:
    """XML beside the images."""
    for name in "abc":
        write_pair(root / f"{name}.jpg", root / f"{name}.xml", CAT, DOG)


def roboflow(root: Path) -> None:
    """{train,valid,test}/ of XML beside the images, the same name in all of them."""
    for split in ("train", "valid", "test"):
        name = "a_jpg.rf.0123"
        write_pair(root / split / f"{name}.jpg", root / split / f"{name}.xml", CAT, DOG)


def folders_in_splits(root: Path) -> None:
    """{train,val,test}/{images,annotations}/."""
    for split in ("train", "val", "test"):
        folder = root / split
        write_pair(folder / "images" / "a.jpg", folder / "annotations" / "a.xml", CAT, DOG)


def splits_in_folders(root: Path) -> None:
    """{images,annotations}/{train,val,test}/."""
    for split in ("train", "val", "test"):
        image = root / "images" / split / "a.jpg"
        write_pair(image, root / "annotations" / split / "a.xml", CAT, DOG)


def splits_of_images(root: Path) -> None:
    """annotations/ of all, images/{train,val,test}/."""
    for name, split in zip("abc", ("train", "val", "test"), strict=True):
        image = root / "images" / split / f"{name}.jpg"
        write_pair(image, root / "annotations" / f"{name}.xml", CAT, DOG)


def tensorflow(root: Path) -> None:
    """images/{train,test}/ of XML beside the images."""
    for name, split in zip("abc", ("train", "train", "test"), strict=True):
        folder = root / "images" / split
        write_pair(folder / f"{name}.JPG", folder / f"{name}.xml", CAT, DOG)


def cvat(root: Path) -> None:
    """labelmap.txt, {Annotations,JPEGImages}/sub/, ImageSets/Main/default.txt; half-open boxes."""
    make_devkit(root, {"default": ("sub/a", "sub/b", "c")}, ".png")
    boxes = (("cat", "20.0 20.0 80.0 90.0"), ("dog", "90.0 30.0 150.0 100.0"))
    for path in (root / "Annotations").rglob("*.xml"):
        path.write_text(annotation(*boxes), encoding="utf-8")
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\ncat:4,5,6::\n"
    (root / "labelmap.txt").write_text(text, encoding="utf-8")
