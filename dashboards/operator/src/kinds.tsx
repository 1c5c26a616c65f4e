import { useEffect, useState } from "preact/hooks";
import { get, told } from "./api";
import { Field } from "./dialog";
import type { CommandKind, KindField } from "./types";

/** Every kind of command, as the cloud describes them; `trouble` where it cannot be read. */
export function useKinds(): { kinds: readonly CommandKind[]; trouble: string | undefined } {
  const [kinds, setKinds] = useState<readonly CommandKind[]>([]);
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    get<{ items: CommandKind[] }>("/v1/command-kinds").then(
      (found) => setKinds(found.items),
      (error: unknown) => setTrouble(told(error)),
    );
  }, []);
  return { kinds, trouble };
}

export type Arguments = Record<string, string>;

/** The first of a field's types that a value can have. */
const typeOf = (field: KindField): string => (Array.isArray(field.type) ? (field.type[0] ?? "string") : field.type);

/** What is sent for what was typed: what is empty is left out. */
export function written(kind: CommandKind, given: Arguments): Record<string, unknown> {
  const body: Record<string, unknown> = { kind: kind.kind };
  for (const [name, field] of Object.entries(kind.schema.properties)) {
    const text = given[name] ?? "";
    if (name === "kind" || text === "") continue;
    body[name] = typeOf(field) === "integer" ? Number(text) : text;
  }
  return body;
}

/** Inputs for a kind's arguments, made from its schema. */
export function KindFields({ kind, given, change }: { kind: CommandKind; given: Arguments; change: (given: Arguments) => void }) {
  return (
    <>
      {Object.entries(kind.schema.properties).map(([name, field]) => {
        if (name === "kind") return null;
        const whole = typeOf(field) === "integer";
        const unit = field["x-unit"] === undefined ? "" : ` (${field["x-unit"]})`;
        const common = {
          required: kind.schema.required.includes(name),
          value: given[name] ?? "",
          onInput: (event: { currentTarget: HTMLInputElement }) => change({ ...given, [name]: event.currentTarget.value }),
        };
        return (
          <Field key={name} label={`${name.charAt(0).toUpperCase()}${name.slice(1).replaceAll("_", " ")}${unit}`} hint={field.description ?? ""}>
            {whole ? (
              <input type="number" min={field.minimum} max={field.maximum} {...common} />
            ) : (
              <input
                type="text"
                minLength={field.minLength}
                maxLength={field.maxLength}
                pattern={field.pattern?.replace(/^\^|\$$/g, "")}
                autocomplete="off"
                spellcheck={false}
                {...common}
              />
            )}
          </Field>
        );
      })}
    </>
  );
}
