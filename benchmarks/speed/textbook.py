"""The textbook: a DataLoader, and for each batch the teacher, the student, the loss of Hinton et al. and a step.

    python textbook.py order.json

Prints seconds and CPU seconds of the loop alone: reading, evaluation and saving are not counted on this side.
"""

import json
import sys
import time
from pathlib import Path

import nets
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader


def main() -> None:
    """Train once as the order says."""
    order = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    data = nets.dataset(order["arrays"])
    teacher, student = nets.teacher(order["classes"]), nets.student(order["classes"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=order["learning_rate"])
    t = order["temperature"]
    started, cpu = time.perf_counter(), time.process_time()
    loader = DataLoader(data, batch_size=order["batch"], shuffle=True)
    student.train()
    for _ in range(order["epochs"]):
        for x, y in loader:
            with torch.no_grad():
                soft = F.softmax(teacher(x) / t, dim=1)
            logits = student(x)
            distilled = F.kl_div(F.log_softmax(logits / t, dim=1), soft, reduction="batchmean") * t**2
            loss = 0.9 * distilled + 0.1 * F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "parameters": [*map(nets.parameters, (teacher, student))]}))


if __name__ == "__main__":
    main()
