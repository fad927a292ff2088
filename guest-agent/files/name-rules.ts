/** Patterns are globs over a file's own name: `*`, `?`, `[a-z]`, `[!a-z]`; anything else stands for itself. */
export interface NamePatterns {
  /** Temporary names of editors and copiers: such files live in memory only and never become tables. */
  readonly scratch: readonly string[];
  /** Temporary names that a person could have chosen too: they count only for files made with O_EXCL, as mkstemp does. */
  readonly exclusiveScratch: readonly string[];
  /** What log rotation renames to. Renaming onto one is no save; a file made with O_EXCL (a compressor's, a copy) is scratch. */
  readonly rotation: readonly string[];
}

/**
 * mkstemp names without a distinctive shape (`name.XXXXXX` of GLib and Qt) are left out on purpose: they look like KPI
 * names. For those the store's newNameHoldMs makes the rename move the row.
 */
export const defaultNamePatterns: NamePatterns = {
  scratch: [
    // vim: swap files and backups; backups of nano and emacs, too
    '.*.sw[a-px]',
    '.sw[a-px]',
    '*~',
    // emacs: auto-save and lock; systemd's atomic writes
    '#*#',
    '.#*',
    // what programs that write atomically or download agree on
    '*.tmp',
    '*.temp',
    '*.part',
    '*.partial',
    '*.filepart',
    '*.crdownload',
    '.~tmp~',
    // locks, and names that NFS and FUSE give to deleted files
    '*.lock',
    '*.lck',
    '.~lock.*',
    '.nfs*',
    '.fuse_hidden*',
    // package managers
    '*.dpkg-new',
    '*.dpkg-tmp',
    '*.dpkg-dist',
    '*.rpmnew',
    '*.ucf-new',
    // GLib; write-file-atomic of Node
    '.goutputstream-??????',
    `*.[1-9]${digits(8)}`,
    `*.[1-9]${digits(9)}`,
  ],
  exclusiveScratch: [
    '4913', // vim's test whether a directory is writable
    'sed??????', // sed -i
    'XX??????', // perl -i
    '.*.??????', // rsync, install
    'tmp.??????????', // mktemp(1)
    'tmp????????', // Python's tempfile
    `.*${digits(7)}`, // Go's renameio
  ],
  rotation: [
    '*.[0-9]',
    `*.${digits(2)}`,
    `*.${digits(3)}`,
    '*.old',
    '*.bak',
    '*.orig',
    '*.save',
    '*.gz',
    '*.bz2',
    '*.xz',
    '*.zst',
    '*.lz4',
    '*.zip',
    // a date, and a date with a time or a count
    `*[-._][12]${digits(3)}[01][0-9][0-3][0-9]`,
    `*[-._][12]${digits(3)}-[01][0-9]-[0-3][0-9]`,
    `*[-._][12]${digits(3)}[01][0-9][0-3][0-9][-._T][0-9]*`,
    `*[-._][12]${digits(3)}-[01][0-9]-[0-3][0-9][-._T][0-9]*`,
    // seconds of the epoch
    `*[-.]1${digits(9)}`,
  ],
};

/** What a name says about the file that bears it. */
export type NameClass = 'kpi' | 'scratch' | 'rotation';

/** Decides by name what becomes a table. Pure; the patterns are compiled once. */
export class NameRules {
  readonly #scratch: RegExp;
  readonly #exclusiveScratch: RegExp;
  readonly #rotation: RegExp;

  constructor(patterns: NamePatterns) {
    this.#scratch = anyOf(patterns.scratch);
    this.#exclusiveScratch = anyOf(patterns.exclusiveScratch);
    this.#rotation = anyOf(patterns.rotation);
  }

  /**
   * The class of a new file. A plainly made `load.1` is a KPI: only O_EXCL or a rename tells it from a rotated file.
   */
  ofNewFile(name: string, isExclusive: boolean): 'kpi' | 'scratch' {
    if (this.#scratch.test(name)) return 'scratch';
    if (!isExclusive) return 'kpi';
    return this.#exclusiveScratch.test(name) || this.#rotation.test(name) ? 'scratch' : 'kpi';
  }

  /** The class of the name that a file is renamed to. A date is a rotation even where it looks temporary. */
  ofRenameTarget(name: string): NameClass {
    if (this.#rotation.test(name)) return 'rotation';
    return this.#scratch.test(name) ? 'scratch' : 'kpi';
  }
}

/** `name` with ASCII letters in lower case, as SQLite compares table names. The same string when there is nothing to fold. */
export function foldCase(name: string): string {
  return /[A-Z]/.test(name) ? name.replace(/[A-Z]/g, (letter) => letter.toLowerCase()) : name;
}

function digits(count: number): string {
  return '[0-9]'.repeat(count);
}

function anyOf(globs: readonly string[]): RegExp {
  if (globs.length === 0) return /(?!)/;
  return new RegExp(`^(?:${globs.map(globSource).join('|')})$`, 's');
}

function globSource(glob: string): string {
  return glob.replace(/\[!?[^\]]+\]|[\s\S]/g, (part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length === 1) return part.replace(/[.+^${}()|[\]\\/]/, '\\$&');
    return part.replace(/\\/g, '\\\\').replace(/^\[!/, '[^');
  });
}
