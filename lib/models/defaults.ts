/** The network where nothing says another, and its weights, which are part of this package. */
export const DEFAULT_NETWORK = 'se_resnet20';
export const BUNDLED_WEIGHTS = 'fashion_mnist';
