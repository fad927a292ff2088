/**
 * The places between two durable steps. A test kills the process at each and checks what a restart makes of it.
 *
 *   apply:    ... writes ... | before-commit | COMMIT | after-commit | outcomes | after-outcomes | replies
 *   start:    identity in the database COMMIT | after-identity-commit | side file
 *             held rows into their tables | before-held-commit | COMMIT | after-held-commit
 *   overtake: row moved to /held | before-overtake-commit | COMMIT | after-overtake-commit
 */
export const crashPoints = [
  'before-commit',
  'after-commit',
  'after-outcomes',
  'after-identity-commit',
  'before-held-commit',
  'after-held-commit',
  'before-overtake-commit',
  'after-overtake-commit',
] as const;
export type CrashPoint = (typeof crashPoints)[number];

/** Called at each crash point; does nothing outside tests. */
export type ReachCrashPoint = (point: CrashPoint) => void;
