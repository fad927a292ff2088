import type { IncomingMessage } from 'node:http';

import { RequestRefused } from './control-code.ts';
import { isSignatureField } from './message-signature.ts';

/** What is known of a request so far, for its answer and for the audit log. */
export class Exchange {
  readonly relation: string;
  /** Until the request is known to be one of ours, its path is a stranger's text. */
  action = 'request';
  object = '';
  bodyDigest: string | null = null;
  requestSignature: string | undefined;

  constructor(relation: string, request: IncomingMessage) {
    this.relation = relation;
    const { signature } = request.headers;
    const isOne = typeof signature === 'string' && isSignatureField(signature);
    this.requestSignature = isOne ? signature : undefined;
  }
}

/**
 * Reads a request's body.
 * @throws RequestRefused `too-large` without reading further than the bound; `incomplete`
 */
export async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) {
    throw new RequestRefused('too-large');
  }
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > bytesMax) {
        request.pause();
        reject(new RequestRefused('too-large'));
      } else {
        chunks.push(chunk);
      }
    });
    request.once('end', () => {
      resolve(Buffer.concat(chunks));
    });
    request.once('close', () => {
      reject(new RequestRefused('incomplete'));
    });
    request.once('error', () => {
      reject(new RequestRefused('incomplete'));
    });
  });
}
