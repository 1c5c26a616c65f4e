import type { List } from "./hooks";
import { Age, Glyph, Section, Trouble } from "./marks";
import { runs, saying, together } from "./sayings";
import { More } from "./table";
import type { TimelineItem } from "./types";

/** What befell a box, newest first. */
export function Timeline({ list }: { list: List<TimelineItem> }) {
  const commands = new Map(list.items?.filter((item) => item.source === "command").map((item) => [item.id, item.kind]));
  return (
    <Section title="Timeline">
      <Trouble text={list.trouble} />
      {list.items?.length === 0 && <p class="quiet">Nothing has happened yet.</p>}
      <ol class="list">
        {runs(list.items ?? []).map((run) => {
          const [newest, oldest] = [run[0], run.at(-1)];
          if (newest === undefined || oldest === undefined) return null;
          return <li key={name(oldest)}>{run.length === 1 ? <Line item={newest} commands={commands} /> : <Run items={run} newest={newest} />}</li>;
        })}
      </ol>
      <More list={list} />
    </Section>
  );
}

const name = (item: TimelineItem) => `${item.source}-${item.id}-${item.number}`;

function Line({ item, commands }: { item: TimelineItem; commands?: ReadonlyMap<string, string> }) {
  const { kind, what, more } = saying(item, commands);
  return (
    <div class="line">
      <Glyph kind={kind} />
      <span class="what">
        {what} {more !== "" && <span class="quiet clip">{more}</span>}
      </span>
      <Age at={item.at} />
    </div>
  );
}

/** Many of a kind in one line, which opens. */
function Run({ items, newest }: { items: readonly TimelineItem[]; newest: TimelineItem }) {
  const { kind, what, more } = together(items);
  return (
    <details>
      <summary class="line">
        <Glyph kind={kind} />
        <span class="what">
          {what} {more !== "" && <span class="quiet clip">{more}</span>}
        </span>
        <Age at={newest.at} />
      </summary>
      {items.map((item) => (
        <Line key={name(item)} item={item} />
      ))}
    </details>
  );
}
