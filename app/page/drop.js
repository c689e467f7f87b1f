/** A place for one file: choose it or drop it; it is sent at once, with a preview, its progress and what is in it. */
import { upload } from "./api.js";
import { h, setText } from "./dom.js";
import { setError } from "./fields.js";
import { bytes, seconds } from "./format.js";

const KINDS = { image: "Photo", video: "Video", audio: "Sound" };

export class Drop {
  /** `field` holds the markup; `onChange()` is called whenever the file or its sending changes. */
  constructor(field, onChange) {
    this.field = field;
    this.onChange = onChange;
    this.box = field.querySelector(".drop");
    this.input = field.querySelector("input");
    this.preview = field.querySelector(".preview");
    this.state = field.querySelector(".state");
    this.file = null;
    this.sent = null; // a promise of the upload, null where there is no usable file
    this.uri = null;
    this.input.addEventListener("change", () => this.input.files[0] && this.take(this.input.files[0]));
    this.box.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.box.classList.add("over");
    });
    this.box.addEventListener("dragleave", () => this.box.classList.remove("over"));
    this.box.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.box.classList.remove("over");
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
  }

  /** Show `file` and send it; one that is on its way is given up. */
  take(file) {
    this.sending?.abort();
    const sending = (this.sending = new AbortController());
    this.file = file;
    this.uri = null;
    setError(this.field, "");
    this.box.classList.add("filled");
    this.#show(file);
    const bar = h("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
    const words = h("span", {}, "Sending");
    const again = h("button", { type: "button", className: "quiet", onclick: () => this.input.click() }, "Change");
    this.state.replaceChildren(h("span", { className: "name" }, file.name), bar, h("span", { className: "row tight" }, words, again));
    this.sent = upload(file, (share) => {
      bar.value = share;
      setText(words, share < 1 ? `Sending, ${Math.floor(share * 10) * 10} %` : "Looking into it");
    }, sending.signal).then(
      (resource) => this.#arrived(resource, bar, words),
      (problem) => {
        if (problem.name === "AbortError") return;
        bar.remove();
        setText(words, "Not sent");
        this.sent = null;
        setError(this.field, problem.message, problem.hint);
      },
    ).finally(() => this.onChange());
    this.onChange();
  }

  #arrived(resource, bar, words) {
    bar.remove();
    const { media, media_problem: problem } = resource;
    if (problem) {
      setText(words, bytes(resource.bytes));
      this.sent = null;
      setError(this.field, problem.message, problem.hint);
      return;
    }
    this.uri = resource.uri;
    const parts = [KINDS[media.kind] ?? media.kind];
    if (media.width && media.kind !== "audio") parts.push(`${media.width} × ${media.height}`);
    const length = this.field.dataset.field === "audio" ? media.audio_duration_s || media.duration_s : media.duration_s;
    if (length) parts.push(seconds(length));
    parts.push(bytes(resource.bytes));
    setText(words, parts.join(" · "));
  }

  #show(file) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(file);
    const kind = file.type.split("/")[0];
    let shown = null;
    if (kind === "image") shown = h("img", { src: this.url, alt: "" });
    else if (this.field.dataset.field === "audio") shown = h("audio", { src: this.url, controls: true, "aria-label": "The recording" });
    else if (kind === "video") shown = h("video", { src: this.url, muted: true, loop: true, autoplay: true, playsInline: true });
    // A format that this browser cannot show may be fine for the service.
    if (shown) shown.onerror = () => (this.preview.hidden = true);
    this.preview.hidden = !shown;
    this.preview.replaceChildren(...(shown ? [shown] : []));
  }
}
