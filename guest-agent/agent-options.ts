import { readFileSync } from 'node:fs';

import type { GuestAgentConfig } from './config.ts';
import { defaultFileSystemOptions, type FileSystemOptions } from './files/options.ts';
import { defaultStoreOptions, type StoreOptions } from './store/store-options.ts';

/** The store's bounds and times from the configuration. */
export function storeOptions(config: GuestAgentConfig): StoreOptions {
  const { headers, ...store } = config.store;
  return {
    ...defaultStoreOptions,
    ...store,
    directory: config.dataDirectory,
    fileBytesMax: config.files.fileBytesMax,
    headerRules: headers.map(({ pattern, header }) => ({ pattern, mode: header })),
    machineId: machineId(),
  };
}

/** The file system's bounds and names from the configuration. */
export function fileSystemOptions(config: GuestAgentConfig): FileSystemOptions {
  const { areaMode, scratchNames, exclusiveScratchNames, rotationNames, ...bounds } = config.files;
  const defaults = defaultFileSystemOptions;
  return {
    ...defaults,
    ...bounds,
    areaMode: Number.parseInt(areaMode, 8),
    areaUserId: process.geteuid?.() ?? 0,
    areaGroupId: process.getegid?.() ?? 0,
    capacityBytes: config.store.databaseBytesMax,
    names: {
      scratch: scratchNames ?? defaults.names.scratch,
      exclusiveScratch: exclusiveScratchNames ?? defaults.names.exclusiveScratch,
      rotation: rotationNames ?? defaults.names.rotation,
    },
  };
}

/** The DMI UUID, which a hypervisor gives each VM: a copied disk under another one is a clone. Root alone can read it. */
function machineId(): string | null {
  try {
    return readFileSync('/sys/class/dmi/id/product_uuid', 'utf8').trim();
  } catch {
    return null;
  }
}
