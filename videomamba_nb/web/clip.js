// The frames behind the tokens: a sheet of pictures from Python, or a video file that the reader opens.

class Clip {
  constructor(frames) { this.frames = frames; }
  // The picture behind frame i of t.
  at(i, t) { return this.frames[Math.min(this.frames.length - 1, Math.floor((i + .5) * this.frames.length / t))]; }
}

function sheet(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  return canvas;
}

// `src` holds `frames` pictures side by side.
function clipFromSheet({src, frames}) {
  return new Promise((resolve, reject) => {
    const img = new Image();
    img.onload = () => {
      const w = img.width / frames;
      resolve(new Clip(Array.from({length: frames}, (_, i) => {
        const canvas = sheet(w, img.height);
        canvas.getContext('2d').drawImage(img, -i * w, 0);
        return canvas;
      })));
    };
    img.onerror = () => reject(new Error('the pictures of the clip cannot be read'));
    img.src = src;
  });
}

function once(target, event, ms) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('timeout')), ms);
    target.addEventListener(event, () => { clearTimeout(timer); resolve(); }, {once: true});
    target.addEventListener('error', () => { clearTimeout(timer); reject(new Error('unreadable')); }, {once: true});
  });
}

async function grab(video, seconds, longest = 224) {
  const seeked = once(video, 'seeked', 5000);
  video.currentTime = seconds;
  await seeked;
  const zoom = Math.min(1, longest / Math.max(video.videoWidth, video.videoHeight));
  const canvas = sheet(Math.round(video.videoWidth * zoom), Math.round(video.videoHeight * zoom));
  canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Frames spread evenly over a file from the reader's disk; nothing leaves the page.
async function clipFromFile(file, frames = 16) {
  const video = document.createElement('video'), url = URL.createObjectURL(file);
  video.muted = true;
  try {
    const ready = once(video, 'loadeddata', 8000);
    video.src = url;
    await ready;
    if (!video.videoWidth || !Number.isFinite(video.duration)) throw new Error('no pictures');
    const out = [];
    for (let i = 0; i < frames; i++) out.push(await grab(video, (i + .5) * video.duration / frames));
    return new Clip(out);
  } catch (e) {
    throw new Error(`${file.name} is not a video that this browser can read`);
  } finally { URL.revokeObjectURL(url); }
}
