/** An image between its file and its pixels, as every decoder gives it. */

/** Pixels in rows of RGB triples. */
export interface DecodedImage {
  /** height x width x 3 bytes. */
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** An image whose header was read. */
export interface EncodedImage {
  /** Most that `decode` holds of pixels at a time, in bytes. */
  readonly pixelBytes: number;
  /** Once. @throws (rejects) ERR_SENET_IMAGE (damaged) */
  readonly decode: () => Promise<DecodedImage>;
}
