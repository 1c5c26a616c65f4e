import { rungName } from "./format";
import { Age, Mark } from "./marks";
import type { Code, Rung } from "./types";

/** From the plug to the cloud, one rung a line; the broken one says what to do about it. */
export function Ladder({ rungs, codes }: { rungs: readonly Rung[]; codes: ReadonlyMap<string, Code> }) {
  if (rungs.length === 0) return <p class="quiet">This box has not said how its connection stands.</p>;
  return (
    <ol class="ladder">
      {rungs.map((rung) => {
        const code = rung.code == null ? undefined : codes.get(rung.code);
        return (
          <li key={rung.rung}>
            <div>
              <strong>{rungName(rung.rung)}</strong> <Mark kind={rung.status} /> <Age at={rung.since} />
            </div>
            {rung.code != null && (
              <p>
                <code>{rung.code}</code> {code?.title ?? rung.title}
                {code !== undefined && <> — {code.operator}</>}
              </p>
            )}
            {rung.evidence && <p class="quiet">{rung.evidence}</p>}
          </li>
        );
      })}
    </ol>
  );
}
