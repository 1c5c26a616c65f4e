import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { me } from "../src/api";
import { listen, live } from "../src/live";

/** The browser's, as far as it is used, played by hand. */
class Line {
  static readonly CLOSED = 2;
  static lines: Line[] = [];
  readyState = 1;
  onopen = () => {};
  onerror = () => {};
  onmessage = (_: { data: string }) => {};
  constructor(readonly url: string) {
    Line.lines.push(this);
  }
  close() {
    this.readyState = Line.CLOSED;
  }
  refuse() {
    this.close();
    this.onerror();
  }
}

const status = vi.fn<() => number>(() => 200);

beforeEach(() => {
  Line.lines = [];
  me.value = { name: "vera", role: "viewer" };
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", Line);
  vi.stubGlobal("fetch", async () => new Response("{}", { status: status() }));
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const last = () => Line.lines.at(-1) as Line;

test("after a broken line everything is read anew, and events are heard", () => {
  const [hear, again] = [vi.fn(), vi.fn()];
  const stop = listen("0123456789AB", hear, again);
  expect([last().url, live.value]).toEqual(["/v1/events?box_id=0123456789AB", false]);

  last().onopen();
  last().onmessage({ data: '{"event":"offline"}' });
  expect([live.value, hear.mock.calls.length, again.mock.calls.length]).toEqual([true, 1, 0]);
  last().onerror();
  expect(live.value).toBe(false);
  last().onopen();
  last().onmessage({ data: '{"event":"lost","count":3}' });
  expect([hear.mock.calls.length, again.mock.calls.length, Line.lines.length]).toEqual([1, 2, 1]);

  stop();
  expect([last().readyState, live.value]).toEqual([Line.CLOSED, undefined]);
});

test("a cloud that refuses is asked again until the session has ended or the page is left", async () => {
  const stop = listen(undefined, vi.fn(), vi.fn());
  last().refuse();
  await vi.advanceTimersByTimeAsync(5000);
  expect(Line.lines.length).toBe(2);

  status.mockReturnValue(503);
  last().refuse();
  await vi.advanceTimersByTimeAsync(5000);
  expect(Line.lines.length).toBe(3);

  status.mockReturnValue(401);
  last().refuse();
  await vi.advanceTimersByTimeAsync(60_000);
  expect([Line.lines.length, me.value]).toEqual([3, null]);

  status.mockReturnValue(200);
  last().refuse();
  stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(Line.lines.length).toBe(3);
});
