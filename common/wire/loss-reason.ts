/** Why frames are lost: what travels and is stored is the code, what is shown is the text. */
export const lossReasonTexts = {
  'log-full': 'the log’s size bound was reached before every subscriber had stored it',
  'log-too-old': 'older than the log’s age bound and not stored by every subscriber',
  'pruned-after-stored': 'pruned after every subscriber had stored it',
  'epoch-unknown': 'the log does not know this epoch',
  'chain-broken': 'the frame contradicts its neighbours’ hashes',
  unspecified: 'for a reason that is not known here',
} as const;
export type LossReason = keyof typeof lossReasonTexts;

export const lossReasons = Object.keys(lossReasonTexts) as [LossReason, ...LossReason[]];

/** The code of a text that a program wrote or sent before there were codes. */
export function lossReasonOf(text: string): LossReason {
  return lossReasons.find((code) => lossReasonTexts[code] === text) ?? 'unspecified';
}
