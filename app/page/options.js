/** The options of the built-in renderer as controls. Only what differs from the default is sent. */
import { h } from "./dom.js";

/** The renderer that these options belong to; where none is asked for, they hold too. */
export const RENDERER = "warp";

const CHOICES = [
  { name: "strength", label: "Mouth opening", kind: "range", min: 0, max: 1.5, step: 0.05, start: 1,
    hint: "1 is natural, 0 keeps it shut." },
  { name: "head_motion", label: "Head and brow motion", kind: "range", min: 0, max: 1, step: 0.05, start: 0.6,
    hint: "Photos only. 0 keeps the head still, 1 is lively." },
  { name: "blinks", label: "Blinks", kind: "select", start: true, hint: "Photos only.",
    values: [[true, "Natural"], [8, "Seldom"], [28, "Often"], [false, "None"]] },
  { name: "gaze", label: "Looking about", kind: "range", min: 0, max: 1, step: 0.05, start: 0.5,
    hint: "Photos only. 0 keeps the eyes fixed, 1 looks away as often as people do in conversation." },
  { name: "crop", label: "Shows", kind: "select", start: "none",
    values: [["none", "The whole picture"], ["face", "Head and shoulders"]] },
  { name: "quality", label: "Encoding", kind: "select", start: "standard",
    values: [["draft", "Draft: small and quick"], ["standard", "Standard"], ["high", "High: larger, slower"]] },
];

/** Put the controls into `place`. Gives an object with `values()`: the options that differ from their defaults. */
export function optionControls(place) {
  const controls = CHOICES.map(control);
  place.replaceChildren(...controls.map((one) => one.field));
  return {
    values: () => Object.fromEntries(controls.filter((c) => c.value() !== c.start).map((c) => [c.name, c.value()])),
  };
}

function control(choice) {
  const id = `option-${choice.name}`;
  const described = { "aria-describedby": `${id}-hint ${id}-error` };
  let input, value;
  const label = h("label", { for: id }, choice.label);
  if (choice.kind === "range") {
    const shown = h("output", { for: id });
    input = h("input", { id, type: "range", min: choice.min, max: choice.max, step: choice.step, ...described });
    input.value = choice.start;
    value = () => Number(input.value);
    const show = () => (shown.textContent = value().toFixed(2));
    input.addEventListener("input", show);
    show();
    label.append(" ", shown);
  } else {
    input = h("select", { id, ...described },
      choice.values.map(([one, words], place) => h("option", { value: String(place), defaultSelected: one === choice.start }, words)));
    value = () => choice.values[Number(input.value)][0];
  }
  const field = h("div", { className: "field", "data-field": `options.${choice.name}` }, label, input,
    h("p", { className: "hint", id: `${id}-hint` }, choice.hint ?? ""), h("p", { className: "error", id: `${id}-error` }));
  return { name: choice.name, start: choice.start, value, field };
}
