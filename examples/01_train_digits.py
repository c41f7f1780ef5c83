"""Train a classifier of handwritten digits, in plain PyTorch style: only the import lines differ.

Run it with ``python examples/01_train_digits.py``.
"""

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.datasets import load_digits
from fastbp.utils.data import DataLoader, TensorDataset, random_split

fastbp.manual_seed(0)

# 1,797 images of 8 x 8 pixels with values 0 to 16, as NumPy arrays; 300 are kept for the test.
images, digits = load_digits(return_X_y=True)
dataset = TensorDataset(fastbp.from_numpy(images / 16), fastbp.from_numpy(digits))
train_set, test_set = random_split(dataset, [1497, 300])
train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
test_loader = DataLoader(test_set, batch_size=300)

model = nn.Sequential(
    nn.Linear(64, 128),
    nn.ReLU(),
    nn.Linear(128, 10),
)
optimizer = optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(1, 21):
    total_loss = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
    if epoch % 5 == 0:
        print(f"epoch {epoch:2}: training loss {total_loss / len(train_loader):.4f}")

with fastbp.no_grad():
    correct = sum((model(x).argmax(dim=1) == y).sum().item() for x, y in test_loader)
print(f"test accuracy: {correct / len(test_set):.1%}")
