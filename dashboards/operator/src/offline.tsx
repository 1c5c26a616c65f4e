import { useState } from "preact/hooks";
import { call, may } from "./api";
import { useAct } from "./hooks";
import { Trouble } from "./marks";
import type { JournalTaken } from "./types";

/** What a text is that somebody carried here from a box. */
export function kindOf(text: string): "request" | "journal" | undefined {
  if (/(^|\s)LH1\//.test(text)) return "request";
  // A journal begins with what the box signed: a JWS, whose header is JSON in base64url.
  if (/^eyJ[\w-]+\.[\w-]+\.[\w-]+\r?\n/.test(text)) return "journal";
  return undefined;
}

/** The box that a request is from: it stands in each of its lines. */
export function boxOf(request: string): string {
  return /LH1\/([0-9A-Z]{12})\//.exec(request)?.[1] ?? "box";
}

/** A box that has no line to us: what people carry from it, and back. */
export function OfflinePage() {
  const act = useAct();
  const [codes, setCodes] = useState("");
  const [done, setDone] = useState<string[]>([]);
  const allowed = may("operator") || may("customer");
  const answer = async (request: string) => {
    const name = `longhaul-${boxOf(request)}-answer.json`;
    save(name, await call<unknown>("POST", "/v1/offline/answers", { request }));
    setDone((before) => [...before, `The answer is saved as ${name}: copy it to the stick, eject the stick, and plug it into the box.`]);
  };
  const journal = async (text: string) => {
    const taken = await call<JournalTaken>("POST", "/v1/offline/journals", { journal: text });
    const known = taken.known === 0 ? "" : `, ${taken.known} were known`;
    setDone((before) => [...before, `${taken.taken} entries of the journal of box ${taken.box} are taken${known}.`]);
  };
  const hand = (files: FileList | null) =>
    act.run(async () => {
      setDone([]);
      // By name: the parts of a journal come in their order.
      const sorted = [...(files ?? [])].sort((a, b) => a.name.localeCompare(b.name));
      for (const file of sorted) {
        const text = await file.text();
        const kind = kindOf(text);
        if (kind === "request") await answer(text);
        else if (kind === "journal") await journal(text);
        else throw new Error(`${file.name} is neither a box's request nor a part of its journal`);
      }
    });
  return (
    <main>
      <div class="title">
        <h1>Box without a line</h1>
      </div>
      <section class="card" aria-label="From the stick">
        <p>
          A box that cannot reach us writes a folder <code>longhaul-…</code> to a USB stick. Give us <code>request.txt</code> from it, and the{" "}
          <code>journal-….txt</code>, too. The answer that you get is for this one box; carry it back within three days.
        </p>
        <Trouble text={act.trouble} />
        <ul role="status">
          {done.map((line) => (
            <li key={line}>{line}</li>
          ))}
        </ul>
        {allowed && (
          <div class="actions">
            <label class="button primary">
              Files from the stick
              <input type="file" class="hidden" multiple accept=".txt,text/plain" disabled={act.busy} onChange={(e) => void hand(e.currentTarget.files)} />
            </label>
          </div>
        )}
      </section>
      {allowed && (
        <form
          class="card"
          aria-label="From the screen"
          onSubmit={(event) => {
            event.preventDefault();
            void act.run(() => answer(codes));
          }}
        >
          <label>
            Without a stick: what the QR codes on the box's screen or page say, in any order
            <textarea rows={8} required maxLength={16384} value={codes} onInput={(event) => setCodes(event.currentTarget.value)} />
          </label>
          <div class="actions">
            <button class="primary" disabled={act.busy}>
              Get the answer
            </button>
          </div>
        </form>
      )}
      <p class="quiet">
        Make the box's <a href="#/orders">ticket</a> before you fetch the answer: it travels with it.
      </p>
    </main>
  );
}

function save(name: string, document_: unknown): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(document_, null, 2)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
