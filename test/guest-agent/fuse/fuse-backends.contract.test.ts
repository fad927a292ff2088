import { describeFuseContract } from '../../support/fuse-contract.ts';
import { mountBackend } from '../../support/mounted-backend.ts';

describeFuseContract('dev-fuse', () => mountBackend('dev-fuse'));
describeFuseContract('fuse-native', () => mountBackend('fuse-native'));
