// The form of a request: fields to a JSON body, and what is wrong with a body back to its fields.
import { element } from "./dom.js";
import { isJson, isNumber, pointerParts } from "./json_text.js";

/** The text of a field as JSON; null where the field is left out. What can't be what it should be
 * is sent as a string: the gateway says what it expects there. */
function jsonOf(field) {
  const text = inputOf(field).value;
  const control = field.dataset.control;
  const optional = !("required" in field.dataset);
  if (control === "text") return text === "" && optional ? null : JSON.stringify(text);
  const trimmed = text.trim();
  if (trimmed === "") return null;
  if (control === "choice") return trimmed;
  const fits = control === "number" ? isNumber(trimmed) : isJson(trimmed);
  return fits ? trimmed : JSON.stringify(text);
}

const inputOf = (field) => field.querySelector("input, select, textarea");
const fieldsOf = (box) => (box === null ? [] : [...box.querySelectorAll(".field[data-control]")]);

function objectOf(fields) {
  const members = fields
    .map((field) => [field.dataset.name, jsonOf(field)])
    .filter(([, json]) => json !== null)
    .map(([name, json]) => `${JSON.stringify(name)}: ${json}`);
  return `{${members.join(", ")}}`;
}

export class RequestForm {
  constructor(form, onChange) {
    this.form = form;
    this.shape = form.dataset.shape;
    this.rowsBox = form.querySelector("#rows");
    this.params = form.querySelector("#params");
    this.template = form.querySelector("#new-row");
    this.onChange = onChange;
    this.made = 0;
    form.querySelector("#add-row").addEventListener("click", () => this.addRow());
    form.querySelector("#add-row").disabled = false;
    this.rows.forEach((row) => this.wireRow(row));
    this.number();
    form.addEventListener("input", (event) => {
      const field = event.target.closest(".field[data-control]");
      if (field) this.setError(field, "");
    });
  }

  get rows() {
    return [...this.rowsBox.querySelectorAll("[data-row]")];
  }

  addRow() {
    this.made += 1;
    const row = this.template.content.firstElementChild.cloneNode(true);
    for (const each of row.querySelectorAll("[id], [for], [aria-describedby]")) {
      for (const name of ["id", "for", "aria-describedby"]) {
        const value = each.getAttribute(name);
        if (value) each.setAttribute(name, value.replaceAll("rowNEW", `rowmore${this.made}`));
      }
    }
    this.rowsBox.append(row);
    this.wireRow(row);
    this.number();
    inputOf(fieldsOf(row)[0]).focus();
    this.onChange();
  }

  wireRow(row) {
    row.querySelector(".remove-row").addEventListener("click", () => {
      row.remove();
      this.number();
      this.form.querySelector("#add-row").focus();
      this.onChange();
    });
  }

  number() {
    const rows = this.rows;
    rows.forEach((row, place) => {
      row.querySelector(".row-name").textContent = `Input ${place + 1}`;
    });
    this.rowsBox.toggleAttribute("data-single", rows.length === 1);
  }

  /** The body as JSON text. */
  body() {
    const rows = this.rows.map((row) => this.rowJson(row));
    // A list of one is never mistaken for one input that is itself a list.
    const bare = this.shape === "record" && rows.length === 1;
    const inputs = bare ? rows[0] : `[${rows.join(", ")}]`;
    const params = this.params === null ? "{}" : objectOf(fieldsOf(this.params));
    this.listed = !bare;
    this.wrapped = params !== "{}";
    return this.wrapped ? `{"inputs": ${inputs}, "params": ${params}}` : inputs;
  }

  rowJson(row) {
    const fields = fieldsOf(row);
    if (this.shape === "record") return objectOf(fields);
    const values = fields.map((field) => jsonOf(field) ?? "null");
    return this.shape === "tuple" ? `[${values.join(", ")}]` : values[0];
  }

  /** Show each error at the field that its pointer names; those that name none are returned. */
  place(errors) {
    this.clear();
    const homeless = [];
    let first = null;
    for (const error of errors) {
      const [field, rest] = this.find(pointerParts(error.pointer));
      if (!field) {
        homeless.push(error);
        continue;
      }
      this.setError(field, rest.length ? `At ${rest.join(" › ")}: ${error.message}` : error.message);
      first ??= field;
    }
    if (first) inputOf(first).focus();
    return homeless;
  }

  find(parts) {
    let path = parts;
    if (this.wrapped && path[0] === "params") {
      return [this.named(this.params, path[1]), path.slice(2)];
    }
    if (this.wrapped && path[0] === "inputs") path = path.slice(1);
    let row = this.rows[0];
    if (this.listed) {
      row = this.rows[Number(path[0])];
      path = path.slice(1);
    }
    if (!row) return [null, []];
    if (this.shape === "value") return [fieldsOf(row)[0], path];
    if (this.shape === "tuple") return [fieldsOf(row)[Number(path[0])], path.slice(1)];
    return [this.named(row, path[0]), path.slice(1)];
  }

  named(box, name) {
    return fieldsOf(box).find((field) => field.dataset.name === name) ?? null;
  }

  clear() {
    fieldsOf(this.form).forEach((field) => this.setError(field, ""));
  }

  setError(field, message) {
    const input = inputOf(field);
    const place = field.querySelector(".error");
    if (message) {
      input.setAttribute("aria-invalid", "true");
      if (place.textContent) place.append(element("br"), message);
      else place.textContent = message;
    } else {
      input.removeAttribute("aria-invalid");
      place.textContent = "";
    }
  }
}
