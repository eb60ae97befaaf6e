"""Load and save generators: snapshots, pretrained folders, the Hugging Face hub, foreign weights."""
