import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { get, query, told } from "./api";
import { listen } from "./live";
import type { FleetEvent, Page } from "./types";

/** Rows in one answer at the most. */
const MAX_ROWS = 1000;

/** A list of the API's, as far as it has been read. */
export interface List<T> {
  /** The rows; undefined until the first answer. */
  items: readonly T[] | undefined;
  /** Why the last reading failed. */
  trouble: string | undefined;
  /** Reads it anew, as many rows as are on the screen. */
  read: () => Promise<void>;
  /** Reads the rows after these; undefined at the end. */
  more: (() => Promise<void>) | undefined;
  /** Replaces the rows by what `change` makes of them. */
  change: (change: (items: readonly T[]) => readonly T[]) => void;
}

/** Reads the list at `path`, in pages of `rows` if it has pages. */
export function useList<T>(path: string, parameters: Record<string, string | undefined> = {}, rows?: number): List<T> {
  const [page, setPage] = useState<{ items: readonly T[]; next?: string | null | undefined }>();
  const [trouble, setTrouble] = useState<string>();
  // Answers may overtake one another: only the newest question's answer counts.
  const asked = useRef(0);
  const held = useRef(0);
  held.current = page?.items.length ?? 0;

  const ask = async (cursor?: string) => {
    asked.current += 1;
    const mine = asked.current;
    const again = Math.min(Math.max(rows ?? 0, held.current), MAX_ROWS);
    const limit = rows === undefined ? undefined : cursor === undefined ? again : rows;
    try {
      const found = await get<Page<T>>(query(path, { ...parameters, limit, cursor }));
      if (mine !== asked.current) return;
      setPage((before) =>
        cursor === undefined || before === undefined ? found : { next: found.next, items: [...before.items, ...found.items] },
      );
      setTrouble(undefined);
    } catch (error) {
      if (mine === asked.current) setTrouble(told(error));
    }
  };
  const latest = useRef(ask);
  latest.current = ask;

  useEffect(() => {
    held.current = 0;
    void latest.current();
  }, [query(path, parameters)]);

  const next = page?.next;
  return {
    items: page?.items,
    trouble,
    read: useCallback(() => latest.current(), []),
    more: next == null ? undefined : () => ask(next),
    change: useCallback((change) => setPage((before) => (before === undefined ? before : { ...before, items: change(before.items) })), []),
  };
}

/** Does `work` soon, once for all calls until then. It is not put off by further calls: what happens
 * all the time would never be shown. */
export function useSoon(work: () => void, ms: number): () => void {
  const latest = useRef(work);
  latest.current = work;
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  return useCallback(() => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      latest.current();
    }, ms);
  }, [ms]);
}

/** Hears what happens while the page is shown; see [`listen`]. */
export function useLive(boxId: string | undefined, hear: (event: FleetEvent) => void, again: () => void): void {
  const latest = useRef({ hear, again });
  latest.current = { hear, again };
  useEffect(
    () =>
      listen(
        boxId,
        (event) => latest.current.hear(event),
        () => latest.current.again(),
      ),
    [boxId],
  );
}

/** Something that the operator asked for: whether it is under way, and why it failed. */
export interface Act {
  busy: boolean;
  trouble: string | undefined;
  /** Does it; nothing while another is under way. */
  run: (work: () => Promise<unknown>) => Promise<void>;
}

export function useAct(): Act {
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<string>();
  const run = async (work: () => Promise<unknown>) => {
    if (busy) return;
    setBusy(true);
    setTrouble(undefined);
    try {
      await work();
    } catch (error) {
      setTrouble(told(error));
    } finally {
      setBusy(false);
    }
  };
  return { busy, trouble, run };
}
