"""The tumour board's room: cases, images, predictions and advice on one page."""
