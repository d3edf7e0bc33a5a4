#include "base/wait.h"

_Thread_local struct wait_hook wait_hook;
