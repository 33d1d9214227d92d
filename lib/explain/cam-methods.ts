/** The methods of class activation maps by name, for whoever offers a choice of them. Loads nothing. */

/** Of a gradient; in the order in which they are offered. */
export const GRADIENT_CAMS = ['gradcam', 'gradcam++', 'layercam'] as const;
export type GradientCam = (typeof GRADIENT_CAMS)[number];

export const CAM_METHODS = [...GRADIENT_CAMS, 'scorecam'] as const;
export type CamMethod = (typeof CAM_METHODS)[number];
