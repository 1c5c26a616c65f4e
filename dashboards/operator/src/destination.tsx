import { useEffect, useState } from "preact/hooks";
import { call, get, may, told } from "./api";
import { useAct } from "./hooks";
import { Age, Mark, Section, Trouble } from "./marks";
import type { Destination } from "./types";

/** A new order's bucket is tried out within seconds. */
const AGAIN_MS = 2_000;

/** What the cloud found out about the bucket that objects go to. */
export function DestinationCard({ bucket }: { bucket: string }) {
  const base = `/v1/buckets/${encodeURIComponent(bucket)}`;
  const [found, setFound] = useState<Destination>();
  const [trouble, setTrouble] = useState<string>();
  const act = useAct();
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let gone = false;
    const look = () =>
      get<Destination>(`${base}/destination`).then(
        (now) => {
          if (gone) return;
          setFound(now);
          if (now.checked === null) timer = setTimeout(() => void look(), AGAIN_MS);
        },
        (error: unknown) => gone || setTrouble(told(error)),
      );
    void look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [base]);
  const probe = () => call<Destination>("POST", `${base}/probe`).then(setFound);
  return (
    <Section
      title={`Destination ${bucket}`}
      aside={
        may("operator") && (
          <button disabled={act.busy} onClick={() => void act.run(probe)}>
            {act.busy ? "Trying it out…" : "Try it out now"}
          </button>
        )
      }
    >
      {found?.checked === null && <p class="quiet">It will be tried out in a moment.</p>}
      {found !== undefined && found.checked !== null && (
        <>
          <p>
            <Mark kind={found.usable ? "ok" : "failed"} text={found.usable ? "deliveries can go there" : "deliveries cannot go there"} />{" "}
            <Age at={found.checked} />
          </p>
          {found.problems.map((problem) => (
            <p key={problem}>{problem}</p>
          ))}
          {found.notes.map((note) => (
            <p key={note} class="quiet">
              {note}
            </p>
          ))}
        </>
      )}
      <Trouble text={act.trouble ?? trouble} />
    </Section>
  );
}
