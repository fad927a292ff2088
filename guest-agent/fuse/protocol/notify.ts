import { replyHeaderBytes } from './reply-message.ts';

/** Codes of unsolicited messages to the kernel: `unique` is 0 and the code stands where replies have the error. */
const notifyCode = { resend: 7, incrementEpoch: 8 } as const;

/** From 7.44 the kernel knows FUSE_NOTIFY_INC_EPOCH. */
export const epochMinorMin = 44;

/** FUSE_NOTIFY_RESEND: deliver all requests again that were read and not answered, with bit 63 of `unique` set. */
export function encodeNotifyResend(): Buffer {
  return encodeNotification(notifyCode.resend);
}

/** FUSE_NOTIFY_INC_EPOCH: look up every name again before using it. */
export function encodeNotifyIncrementEpoch(): Buffer {
  return encodeNotification(notifyCode.incrementEpoch);
}

function encodeNotification(code: number): Buffer {
  const bytes = Buffer.alloc(replyHeaderBytes);
  bytes.writeUInt32LE(replyHeaderBytes, 0);
  bytes.writeInt32LE(code, 4);
  return bytes;
}
