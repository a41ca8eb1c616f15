// What is said about the models that are served.

// In the order of training, which is the order to read them in; what was chosen stays.
export function showChoice(models, first, beside) {
  const step = (model) => model.step ?? Infinity;
  const byStep = [...models].sort((a, b) => (step(a) === step(b) ? 0 : step(a) - step(b)));
  const options = () => byStep.map(({ id }) => new Option(id, id));
  const kept = [first.value, beside.value];
  first.replaceChildren(...options());
  first.value = (models.find(({ id }) => id === kept[0]) ?? models[0]).id;
  beside.replaceChildren(new Option("none", ""), ...options());
  beside.value = models.find(({ id }) => id === kept[1])?.id ?? "";
}

export function showProvenance(list, { system_fingerprint, provenance }) {
  const { files, same_weights, ...rest } = provenance ?? {};
  const named = Object.entries(rest).map(([name, value]) => [name.replaceAll("_", " "), value]);
  const rows = [["fingerprint", system_fingerprint], ...named];
  for (const branch of same_weights ?? []) rows.push(["same weights", branch]);
  for (const [name, sha256] of Object.entries(files ?? {})) rows.push([name, sha256]);
  const cells = rows.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = String(value ?? "none");
    return [term, text];
  });
  list.replaceChildren(...cells);
}
