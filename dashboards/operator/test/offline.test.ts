import { expect, test } from "vitest";
import { boxOf, kindOf } from "../src/offline";

const line = "LH1/0123456789AB/01/09/MFRGGZDFMY";

test("what somebody carried is told apart by what it is, not by its name", () => {
  expect(kindOf(`${line}\nLH1/0123456789AB/02/09/MFRGG\n`)).toBe("request");
  expect(kindOf(`scanned: ${line}`)).toBe("request");
  expect(kindOf('eyJhbGciOiJFUzI1NiJ9.e30.AAAA\n{"number":1}\n')).toBe("journal");
  expect(kindOf('{"answer":"eyJ.e.A","sealed":""}')).toBeUndefined();
  expect(kindOf("")).toBeUndefined();
});

test("a request names its box", () => {
  expect(boxOf(line)).toBe("0123456789AB");
  expect(boxOf("")).toBe("box");
});
