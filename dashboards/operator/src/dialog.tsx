import { cloneElement, type ComponentChildren, type VNode } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { useAct } from "./hooks";
import { Trouble } from "./marks";

/** The browser's own dialog: it keeps the focus inside, and Escape closes it. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}

/** What `send` yields where the dialog is to stay open. */
export const STAY = Symbol("stay");

/** Asks in a dialog: a form whose answer is sent, and that closes when it was taken. */
export function Ask({ title, verb, danger, ready, send, close, children }: {
  title: string;
  verb: string;
  danger?: boolean;
  ready?: boolean;
  send: () => Promise<unknown>;
  close: () => void;
  children: ComponentChildren;
}) {
  const act = useAct();
  const form = useRef<HTMLFormElement>(null);
  // Closed by the browser, so that it gives the focus back to where it was.
  const shut = () => form.current?.closest("dialog")?.close();
  return (
    <Dialog title={title} close={close}>
      <form
        ref={form}
        onSubmit={(event) => {
          event.preventDefault();
          void act.run(() => send().then((said) => (said === STAY ? undefined : shut())));
        }}
      >
        {children}
        <Trouble text={act.trouble} />
        <div class="actions">
          <button type="button" onClick={shut}>
            Cancel
          </button>
          <button class={danger === true ? "danger" : "primary"} disabled={act.busy || ready === false}>
            {act.busy ? "Wait…" : verb}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** Asks before something that cannot be undone; with `type`, it has to be typed. */
export function Confirm({ type, children, ...ask }: {
  title: string;
  verb: string;
  type?: string;
  send: () => Promise<unknown>;
  close: () => void;
  children: ComponentChildren;
}) {
  const [typed, setTyped] = useState("");
  return (
    <Ask {...ask} danger ready={type === undefined || typed.trim() === type}>
      {children}
      {type !== undefined && (
        <Field label={`Type ${type} to confirm`}>
          <input value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autocomplete="off" spellcheck={false} />
        </Field>
      )}
    </Ask>
  );
}

/** A labelled input. */
export function Field({ label, hint, children }: { label: string; hint?: string; children: VNode<object> }) {
  const id = useId();
  const about = `${id}-hint`;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {cloneElement(children, hint === undefined ? { id } : { id, "aria-describedby": about })}
      {hint !== undefined && (
        <small id={about} class="quiet">
          {hint}
        </small>
      )}
    </div>
  );
}
