"""The renderer whose work a ComfyUI server does, by a workflow of the operator's."""
