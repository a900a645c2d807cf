#include "fmi/fmi.h"
