"""The same job through torchdistill's DistillationBox, as its own example for image classification drives it.

    python with_torchdistill.py order.json

Run by an environment that has torchdistill and not Stillhouse. As on the textbook's side, the loop alone is counted:
its example would also evaluate on the validation split after each epoch, and log.
"""

import json
import logging
import sys
import time
from pathlib import Path

import nets
import torch
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import get_distillation_box


def config(order: dict[str, float]) -> dict[str, object]:
    """What its YAML files say for one stage of distillation; teacher outputs are not cached, as is its default."""
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
        "kwargs": {"batch_size": order["batch"], "num_workers": 0},
    }
    kd = {
        "criterion": {
            "key": "KDLoss",
            "kwargs": {
                "student_module_path": ".",
                "student_module_io": "output",
                "teacher_module_path": ".",
                "teacher_module_io": "output",
                "temperature": order["temperature"],
                "alpha": 0.1,
                "reduction": "batchmean",
            },
        },
        "weight": 1.0,
    }
    model = {"forward_proc": "forward_batch_only", "sequential": [], "wrapper": None}
    return {
        "num_epochs": order["epochs"],
        "train_data_loader": loader,
        "val_data_loader": {},
        "teacher": {**model, "requires_grad": False},
        "student": {**model, "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": order["learning_rate"]}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": kd}}},
    }


def main() -> None:
    """Train once as the order says."""
    logging.disable(logging.INFO)
    order = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    device = torch.device("cpu")
    data = {"train": nets.dataset(order["arrays"])}
    teacher, student = nets.teacher(order["classes"]), nets.student(order["classes"])
    started, cpu = time.perf_counter(), time.process_time()
    box = get_distillation_box(teacher, student, data, config(order), device, None, False, 1)
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for x, y, more in box.train_data_loader:
            loss = box.forward_process(x.to(device), y.to(device), more)
            box.post_forward_process(loss=loss)
        box.post_epoch_process()
    box.clean_modules()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "parameters": [*map(nets.parameters, (teacher, student))]}))


if __name__ == "__main__":
    main()
