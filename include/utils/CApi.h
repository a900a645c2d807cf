/*
 * The C API, for the headers of the C++ layer: they include this file and
 * never fmi.h itself, which in C++ includes the layer and would go round in a
 * circle.
 */
#ifndef FMI_UTILS_CAPI_H
#define FMI_UTILS_CAPI_H

#if !defined(__cplusplus) || __cplusplus < 201703L
#error "FMI's C++ layer needs C++17 or later: compile with -std=c++17, or include <fmi.h> alone for the C API"
#endif

#ifdef FMI_INSIDE_CXX_LAYER
#include "../fmi.h"
#else
#define FMI_INSIDE_CXX_LAYER
#include "../fmi.h"
#undef FMI_INSIDE_CXX_LAYER
#endif

#endif /* FMI_UTILS_CAPI_H */
