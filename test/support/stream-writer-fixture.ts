import { createWriteStream } from 'node:fs';

/** Writes lines through a Node stream, one write each: stream-writer-fixture.js FILE FLAGS LINE... */
const [path = '', flags, ...lines] = process.argv.slice(2);
const stream = createWriteStream(path, flags === undefined ? {} : { flags });
for (const line of lines) stream.write(`${line}\n`);
stream.end();
