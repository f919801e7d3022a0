// The samples of the README of the installed @kurrent/kurrentdb-client.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const home = join("node_modules", "@kurrent", "kurrentdb-client");
const { version } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
const readme = readFileSync(join(home, "README.md"), "utf8").replaceAll("\r\n", "\n");
const itsServer = "kurrentdb://admin:changeit@localhost:2113?tls=false";
const ours = process.env.STORMKEEP_URL;

const sample = (language) => {
  const [, rest] = readme.split("```" + language + "\n");
  if (rest === undefined) throw new Error(`the README has no ${language} sample any more`);
  const code = rest.split("```")[0];
  if (!code.includes(itsServer)) throw new Error(`the ${language} sample speaks to another server`);
  return code.replace(itsServer, ours);
};

const scratch = mkdtempSync("readme-");
const run = (file, code, ...program) => {
  writeFileSync(join(scratch, file), code);
  const [command, ...options] = program;
  return spawnSync(command, [...options, join(scratch, file)], { encoding: "utf8", timeout: 120_000 });
};
const passed = (name, { status, stdout, stderr }) => {
  if (status !== 0) throw new Error(`${name}: ended with ${status}\n${stdout}\n${stderr}`);
  return stdout;
};

console.log(`the README of @kurrent/kurrentdb-client ${version}, its server replaced by ${ours}`);
try {
  const javascript = sample("javascript");
  const checked = run("sample.cjs", javascript, process.execPath, "--check");
  if (checked.status === 0) {
    const told = passed("JavaScript", run("sample.cjs", javascript, process.execPath));
    if (!told.includes("grpc-client")) throw new Error(`JavaScript: no event was read:\n${told}`);
    console.log("  JavaScript: ran");
  } else {
    const [why] = checked.stderr.match(/SyntaxError: .*/) ?? [checked.stderr];
    console.log(`  JavaScript: cannot be run by anything, as it is published: ${why}`);
  }

  // It never calls its function, and prints a variable that it does not declare; so both are done around it.
  const typescript = sample("typescript");
  const around = [
    `globalThis.reservation = "(the sample prints what it does not declare)";`,
    typescript,
    `await simpleTest();`,
    `let seats = 0;`,
    `for await (const { event } of client.readStream("booking-abc123")) {`,
    `  if (event?.type === "seat-reserved" && event.data.seatId === "4b") seats += 1;`,
    `}`,
    `if (seats === 0) throw new Error("the sample's event is not in its stream");`,
    `await client.dispose();`,
  ];
  passed("TypeScript", run("sample.mts", around.join("\n"), process.execPath, "--import", "tsx"));
  console.log("  TypeScript: ran, its function called from outside");
} finally {
  rmSync(scratch, { recursive: true });
}
