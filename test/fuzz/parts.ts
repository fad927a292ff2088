/** Parts that one input has at most; what follows is ignored. */
const partsMax = 256;
const lengthBytes = 2;

/** Several things in one input: each with its length, two bytes. */
export function joinParts(parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    parts.flatMap((part) => {
      const length = Buffer.alloc(lengthBytes);
      length.writeUInt16LE(part.length);
      return [length, part];
    }),
  );
}

/** What {@link joinParts} joined; for any other bytes what can be made of them. */
export function* partsIn(input: Uint8Array): Generator<Buffer> {
  const bytes = Buffer.from(input);
  let at = 0;
  for (let count = 0; count < partsMax && at + lengthBytes <= bytes.length; count += 1) {
    const end = at + lengthBytes + bytes.readUInt16LE(at);
    yield bytes.subarray(at + lengthBytes, end);
    at = end;
  }
}
