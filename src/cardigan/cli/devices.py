"""Checks of --device and --devices. Imports torch only where a GPU or several processes are asked for."""

from cardigan.errors import CardiganError

MAX_DEVICES = 64


def check_device(device: str) -> None:
    """Raise CardiganError for a device that this machine does not have."""
    if device in {"auto", "cpu"}:
        return
    import torch

    num_gpus = torch.cuda.device_count()
    cuda_names = ["cuda", *(f"cuda:{number}" for number in range(num_gpus))] if num_gpus else []
    if device not in cuda_names and not (device == "mps" and torch.backends.mps.is_available()):
        available = (
            f"cuda:0..cuda:{num_gpus - 1}"
            if num_gpus
            else "mps"
            if torch.backends.mps.is_available()
            else "this machine has none"
        )
        raise CardiganError(f"--device is {device!r}: expected auto, cpu, or a GPU ({available}).")


def check_num_devices(num_devices: int, device: str) -> None:
    """Raise CardiganError for a number of processes that this machine cannot run, each on its own device."""
    if not 1 <= num_devices <= MAX_DEVICES:
        raise CardiganError(f"--devices is {num_devices}: expected 1..{MAX_DEVICES}.")
    if num_devices > 1:
        from cardigan.hardware.device_processes import process_devices

        process_devices(device, num_devices)
