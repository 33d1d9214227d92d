/** What may be typed after `senet-torch serve`, as commander gives it. */
import type { NetworkOptions } from './load-classifier';

export interface ServeOptions extends NetworkOptions {
  name?: string;
  config?: string;
  watch?: string;
  port?: number;
  host?: string;
  grpcPort?: number;
  workers?: number;
  threads?: number;
  dtype?: string;
  shrinkOnLoad?: boolean;
  maxBatch?: number;
  delay?: number;
  maxQueue?: number;
  maxBody?: number;
  maxImages?: number;
  maxPixels?: number;
  timeout?: number;
  drainDelay?: number;
  allowUrls?: string | true;
  apiKey?: string[];
  cors?: string[];
  rateLimit?: number;
  tlsCert?: string;
  tlsKey?: string;
  log?: string;
}
