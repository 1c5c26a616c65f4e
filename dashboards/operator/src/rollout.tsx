import { useEffect, useState } from "preact/hooks";
import { call, get, may, told } from "./api";
import { Confirm } from "./dialog";
import { count, words } from "./format";
import { useLive, useSoon } from "./hooks";
import { Age, Mark, Trouble } from "./marks";
import { boxLink } from "./route";
import { Table } from "./table";
import type { Rollout, RolloutBox } from "./types";

/** What can move a box of a rollout on. */
const MOVES = ["rollout", "update", "command", "online", "offline"];

/** How a box's part in a rollout can have ended. */
const ENDS = ["committed", "rolled_back", "failed", "expired", "cancelled"];
const open = (box: RolloutBox) => !ENDS.includes(box.state);

/** One rollout: how far each of its boxes has come, and why no further. */
export function RolloutPage({ id }: { id: string }) {
  const [rollout, setRollout] = useState<Rollout>();
  const [trouble, setTrouble] = useState<string>();
  const [aborting, setAborting] = useState(false);
  const read = () =>
    get<Rollout>(`/v1/rollouts/${encodeURIComponent(id)}`).then(
      (found) => {
        setRollout(found);
        setTrouble(undefined);
      },
      (error: unknown) => setTrouble(told(error)),
    );
  useEffect(() => void read(), []);
  const soon = useSoon(() => void read(), 300);
  useLive(
    undefined,
    (event) => {
      if (MOVES.includes(event.event)) soon();
    },
    soon,
  );

  const counts = new Map<string, number>();
  for (const box of rollout?.boxes ?? []) counts.set(box.state, (counts.get(box.state) ?? 0) + 1);
  return (
    <main>
      <div class="title">
        <h1>{rollout === undefined ? "Rollout" : `Rollout of ${rollout.version}`}</h1>
        <span class="quiet">{id}</span>
        {rollout !== undefined && (
          <span>
            started <Age at={rollout.started_at} /> by {rollout.started_by}
          </span>
        )}
        {rollout?.aborted_at != null && (
          <span>
            <Mark kind="aborted" /> <Age at={rollout.aborted_at} /> by {rollout.aborted_by}
          </span>
        )}
        {may("operator") && rollout !== undefined && rollout.aborted_at == null && rollout.boxes.some(open) && (
          <button class="aside" onClick={() => setAborting(true)}>
            Abort…
          </button>
        )}
      </div>
      <Trouble text={trouble} />
      {rollout !== undefined && (
        <>
          <p class="tally" aria-live="polite">
            <span>{count(rollout.boxes.length, "box", "boxes")}</span>
            {[...counts].sort().map(([state, n]) => (
              <Mark key={state} kind={state} text={`${n} ${words(state)}`} />
            ))}
          </p>
          <Table
            label="Boxes"
            rows={rollout.boxes}
            name={(box) => box.box_id}
            columns={[
              { head: "Box", cell: (box) => <a href={boxLink(box.box_id)}>{box.box_id}</a> },
              {
                head: "Step",
                cell: (box) => (
                  <>
                    <Mark kind={box.state} /> <Age at={box.since} />
                    {box.step != null && box.step !== box.state && <small>{words(box.step)}</small>}
                  </>
                ),
              },
              { head: "Before", cell: (box) => box.version_before ?? "–" },
              { head: "After", cell: (box) => box.version_after ?? "–" },
              { head: "Reason", cell: (box) => <span class="text">{box.reason ?? "–"}</span> },
            ]}
          />
        </>
      )}
      {aborting && (
        <Confirm
          title="Abort this rollout?"
          verb="Abort"
          send={() => call("POST", `/v1/rollouts/${encodeURIComponent(id)}/abort`).then(read)}
          close={() => setAborting(false)}
        >
          <p>Boxes that have not begun are not sent it any more. Those that have begun bring it to an end.</p>
        </Confirm>
      )}
    </main>
  );
}
