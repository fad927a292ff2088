import { createDecipheriv, createHmac } from 'node:crypto';

/** What both ends of one TCP connection sent, as a listener on the wire has it. */
export interface WireRecording {
  readonly fromClient: Uint8Array;
  readonly fromServer: Uint8Array;
}

/** What an end of a TLS connection was sent: messages of the handshake, certificates among them, and application data. */
export interface TlsTranscript {
  readonly client: Buffer;
  readonly server: Buffer;
}

interface CipherSuite {
  readonly cipher: 'aes-128-gcm' | 'aes-256-gcm' | 'chacha20-poly1305';
  readonly keyBytes: number;
  readonly hash: 'sha256' | 'sha384';
}

interface TlsRecord {
  readonly type: number;
  readonly header: Buffer;
  readonly body: Buffer;
}

const suites: Readonly<Record<number, CipherSuite>> = {
  0x13_01: { cipher: 'aes-128-gcm', keyBytes: 16, hash: 'sha256' },
  0x13_02: { cipher: 'aes-256-gcm', keyBytes: 32, hash: 'sha384' },
  0x13_03: { cipher: 'chacha20-poly1305', keyBytes: 32, hash: 'sha256' },
};
const recordHeaderBytes = 5;
const handshakeRecord = 22;
const encryptedRecord = 23;
const tagBytes = 16;
const ivBytes = 12;
/** Of a hello: after the record's header, the message's header and the version. */
const randomAt = recordHeaderBytes + 4 + 2;
const randomBytes = 32;

/**
 * Opens a recorded TLS 1.3 connection (RFC 8446) with the secrets of a key log file in the format of NSS, as
 * `node --tls-keylog` writes it. What is cut off in the middle of a record ends with the record before it.
 *
 * @throws Error when the key log has nothing of this connection, or its secrets don't fit
 */
export function openTranscript(recording: WireRecording, keyLog: string): TlsTranscript {
  const { fromClient, fromServer } = recording;
  const clientRandom = Buffer.from(fromClient).subarray(randomAt, randomAt + randomBytes);
  const secrets = secretsOf(keyLog, clientRandom.toString('hex'));
  const suite = suiteOf(Buffer.from(fromServer));
  return {
    client: openDirection(fromClient, suite, [
      secretNamed(secrets, 'CLIENT_HANDSHAKE_TRAFFIC_SECRET'),
      secretNamed(secrets, 'CLIENT_TRAFFIC_SECRET_0'),
    ]),
    server: openDirection(fromServer, suite, [
      secretNamed(secrets, 'SERVER_HANDSHAKE_TRAFFIC_SECRET'),
      secretNamed(secrets, 'SERVER_TRAFFIC_SECRET_0'),
    ]),
  };
}

function secretsOf(keyLog: string, clientRandom: string): ReadonlyMap<string, Buffer> {
  const lines = keyLog.split('\n').map((line) => line.split(' '));
  return new Map(
    lines
      .filter(([, random]) => random === clientRandom)
      .map(([label = '', , secret = '']) => [label, Buffer.from(secret, 'hex')]),
  );
}

function secretNamed(secrets: ReadonlyMap<string, Buffer>, label: string): Buffer {
  const secret = secrets.get(label);
  if (secret === undefined) throw new Error(`the key log has no ${label} of this connection`);
  return secret;
}

function suiteOf(fromServer: Buffer): CipherSuite {
  const sessionIdAt = randomAt + randomBytes;
  const code = fromServer.readUInt16BE(sessionIdAt + 1 + fromServer.readUInt8(sessionIdAt));
  const suite = suites[code];
  if (suite === undefined) throw new Error(`cipher suite ${code.toString(16)} is none of TLS 1.3`);
  return suite;
}

/** The handshake's secret first; the record that it does not open any more is the first under the next one. */
function openDirection(bytes: Uint8Array, suite: CipherSuite, secrets: readonly Buffer[]): Buffer {
  const ciphers = secrets.map((secret) => new RecordCipher(suite, secret));
  const opened: Buffer[] = [];
  for (const record of recordsOf(Buffer.from(bytes))) {
    if (record.type === handshakeRecord) opened.push(record.body);
    if (record.type !== encryptedRecord) continue;
    let content = ciphers[0]?.open(record);
    while (content === undefined && ciphers.length > 1) {
      ciphers.shift();
      content = ciphers[0]?.open(record);
    }
    if (content === undefined) throw new Error('the secrets of the key log open no more records');
    opened.push(content);
  }
  return Buffer.concat(opened);
}

function recordsOf(bytes: Buffer): TlsRecord[] {
  const records: TlsRecord[] = [];
  let at = 0;
  while (at + recordHeaderBytes <= bytes.length) {
    const end = at + recordHeaderBytes + bytes.readUInt16BE(at + 3);
    if (end > bytes.length) break;
    const header = bytes.subarray(at, at + recordHeaderBytes);
    const body = bytes.subarray(at + recordHeaderBytes, end);
    records.push({ type: bytes.readUInt8(at), header, body });
    at = end;
  }
  return records;
}

/** Opens the records of one direction under one traffic secret, in their order. */
class RecordCipher {
  readonly #suite: CipherSuite;
  readonly #key: Buffer;
  readonly #iv: Buffer;
  #recordCount = 0n;

  constructor(suite: CipherSuite, secret: Buffer) {
    this.#suite = suite;
    this.#key = expandLabel(suite, secret, 'key', suite.keyBytes);
    this.#iv = expandLabel(suite, secret, 'iv', ivBytes);
  }

  /** Content and type of the record; undefined when another secret sealed it. */
  open({ header, body }: TlsRecord): Buffer | undefined {
    const nonce = Buffer.from(this.#iv);
    const counter = nonce.readBigUInt64BE(ivBytes - 8) ^ this.#recordCount;
    nonce.writeBigUInt64BE(counter, ivBytes - 8);
    const options = { authTagLength: tagBytes } as const;
    // The type of `createDecipheriv` differs by the name of the cipher; what is used here is the same.
    const cipher = this.#suite.cipher as 'chacha20-poly1305';
    const decipher = createDecipheriv(cipher, this.#key, nonce, options);
    decipher.setAuthTag(body.subarray(-tagBytes));
    decipher.setAAD(header, { plaintextLength: body.length - tagBytes });
    try {
      const content = decipher.update(body.subarray(0, -tagBytes));
      decipher.final();
      this.#recordCount += 1n;
      return content;
    } catch {
      return undefined;
    }
  }
}

/** HKDF-Expand-Label of RFC 8446, 7.1, without context; one block of the hash is enough. */
function expandLabel(suite: CipherSuite, secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([
    Buffer.from([length >> 8, length & 0xff, name.length]),
    name,
    Buffer.from([0, 1]),
  ]);
  return createHmac(suite.hash, secret).update(info).digest().subarray(0, length);
}
