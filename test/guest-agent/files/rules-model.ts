/** A row as the model expects it in the store. */
export interface ModelRow {
  table: string;
  text: string;
  isPublished: boolean;
}

interface ModelFile {
  content: string;
  isStored: boolean;
  versionCount: number;
}

export interface ModelHandle {
  readonly file: ModelFile;
  readonly isAppend: boolean;
  /** null: the handle of a scratch file. */
  table: string | null;
  own: string | null;
  isChanged: boolean;
  /** With O_APPEND: bytes of `own` that are in the file. */
  sentLength: number;
  held: ModelRow | null;
  cut: { readonly versionCount: number; length: number } | null;
}

/** The rules of capture in plain words over strings: one process at a time, every commit at once. */
export class RulesModel {
  readonly files = new Map<string, ModelFile>();
  readonly rows: ModelRow[] = [];
  #handles = new Set<ModelHandle>();

  open(name: string, mode: string): ModelHandle {
    let file = this.files.get(name);
    if (file === undefined) {
      file = { content: '', isStored: !isTemporary(name), versionCount: 0 };
      this.files.set(name, file);
    }
    const handle: ModelHandle = {
      file,
      isAppend: mode === 'a',
      table: file.isStored ? name : null,
      own: null,
      isChanged: false,
      sentLength: 0,
      held: null,
      cut: null,
    };
    this.#handles.add(handle);
    if (mode === 'w' && handle.table === null) file.content = '';
    if (mode === 'w' && handle.table !== null) this.resize(handle, 0);
    return handle;
  }

  write(handle: ModelHandle, offset: number, text: string): void {
    const { file } = handle;
    if (handle.table === null) {
      file.content = splice(file.content, handle.isAppend ? file.content.length : offset, text);
      handle.isChanged = true;
      return;
    }
    if (!handle.isAppend) {
      handle.own = splice(handle.own ?? file.content, offset, text);
      handle.isChanged = true;
      return;
    }
    const pending = (handle.own ?? '') + text;
    const end = text.includes('\n') ? pending.lastIndexOf('\n') + 1 : 0;
    handle.own = pending.slice(end);
    if (end > 0) {
      this.#append(handle, pending.slice(0, end), true);
      handle.sentLength = 0;
    }
    handle.isChanged = end === 0 || handle.own !== '';
  }

  resize(handle: ModelHandle, length: number): void {
    handle.own = sized(handle.own ?? handle.file.content, length);
    handle.cut = {
      versionCount: handle.file.versionCount,
      length: Math.min(handle.cut?.length ?? length, length),
    };
  }

  wouldSave(handle: ModelHandle): boolean {
    const isSavable = handle.table !== null && handle.isChanged && !handle.isAppend;
    return isSavable && !isBlank(handle.own ?? '');
  }

  flush(handle: ModelHandle, succeeds = true): void {
    if (handle.table === null || !handle.isChanged) return;
    const own = handle.own ?? '';
    const { file } = handle;
    if (handle.isAppend) {
      if (!isBlank(own)) this.#append(handle, own, false);
      if (!isBlank(own)) handle.sentLength = own.length;
    } else if (!isBlank(own)) {
      handle.cut = null;
      file.versionCount += 1;
      if (succeeds) {
        this.#replaceHeld(handle, { table: handle.table, text: own, isPublished: false });
        if (file.isStored) file.content = own;
      }
    }
    handle.isChanged = false;
  }

  publish(handle: ModelHandle): void {
    if (handle.held !== null) handle.held.isPublished = true;
    handle.held = null;
  }

  close(handle: ModelHandle): void {
    this.flush(handle);
    this.publish(handle);
    this.#handles.delete(handle);
    const { file, cut, own } = handle;
    if (cut === null || own === null || !file.isStored) return;
    if (cut.versionCount !== file.versionCount) return;
    if (cut.length < file.content.length) file.content = file.content.slice(0, cut.length);
    file.content = sized(file.content, own.length);
  }

  truncate(name: string, length: number): void {
    const file = this.files.get(name);
    if (file !== undefined) file.content = sized(file.content, length);
  }

  unlink(name: string): void {
    const file = this.files.get(name);
    if (file === undefined) return;
    this.files.delete(name);
    this.#leave(file);
  }

  rename(from: string, to: string): void {
    const file = this.files.get(from);
    if (file === undefined || from === to) return;
    const replaced = this.files.get(to);
    this.files.delete(from);
    this.files.set(to, file);
    if (replaced !== undefined) this.#leaveReplaced(replaced, file, to);
    if (isTemporary(to)) {
      if (file.isStored) this.#leave(file);
      return;
    }
    if (isRotation(to)) return;
    const open = [...this.#handles].filter((handle) => handle.file === file);
    if (!file.isStored) {
      if (!isBlank(file.content)) this.#add({ table: to, text: file.content, isPublished: true });
      file.isStored = true;
      for (const handle of open) {
        if (handle.table === null) handle.isChanged = false;
        handle.table = to;
      }
      return;
    }
    const held = open.flatMap((handle) => (handle.held === null ? [] : [handle.held]));
    for (const row of held) row.table = to;
    for (const handle of open) handle.table = to;
    if (held.length === 0 && !isBlank(file.content)) {
      this.#add({ table: to, text: file.content, isPublished: true });
    }
  }

  restart(): void {
    for (const row of this.rows) row.isPublished = true;
    for (const [name, file] of this.files) if (!file.isStored) this.files.delete(name);
    this.#handles = new Set();
  }

  /** A file over which another was renamed: the store publishes nothing of it, unless it made room by a removal. */
  #leaveReplaced(replaced: ModelFile, file: ModelFile, to: string): void {
    const byRemoval = !file.isStored && (isRotation(to) || isBlank(file.content));
    if (byRemoval) this.#leave(replaced);
    else replaced.isStored = false;
  }

  #leave(file: ModelFile): void {
    if (!file.isStored) return;
    file.isStored = false;
    for (const handle of this.#handles) if (handle.file === file) this.publish(handle);
  }

  #append(handle: ModelHandle, text: string, isComplete: boolean): void {
    const { file, table } = handle;
    if (table === null) return;
    file.versionCount += 1;
    if (file.isStored) file.content += text.slice(handle.sentLength);
    if (handle.sentLength > 0) this.#dropHeld(handle);
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const row = { table, text: line, isPublished: isComplete };
      this.#add(row);
      if (!isComplete) handle.held = row;
    }
  }

  #replaceHeld(handle: ModelHandle, row: ModelRow): void {
    this.#dropHeld(handle);
    handle.held = row;
    this.#add(row);
  }

  #dropHeld(handle: ModelHandle): void {
    if (handle.held !== null) this.rows.splice(this.rows.indexOf(handle.held), 1);
    handle.held = null;
  }

  #add(row: ModelRow): void {
    this.rows.push(row);
  }
}

function isTemporary(name: string): boolean {
  return name.endsWith('.tmp');
}

function isRotation(name: string): boolean {
  return /\.\d$/.test(name);
}

function isBlank(text: string): boolean {
  return /^\0*$/.test(text);
}

function sized(text: string, length: number): string {
  return text.slice(0, length).padEnd(length, '\0');
}

function splice(text: string, offset: number, added: string): string {
  return sized(text, offset) + added + text.slice(offset + added.length);
}
