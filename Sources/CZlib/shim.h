#pragma once
#include <zlib.h>

// A macro, which Swift does not see: windows of up to 32 KiB, gzip's header and trailer (zlib.h, inflateInit2).
static inline int polder_inflate_gzip_init(z_stream *stream) { return inflateInit2(stream, 15 + 16); }
