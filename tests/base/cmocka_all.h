/* cmocka.h with what it needs before it. */
#ifndef APFS_TESTS_CMOCKA_ALL_H
#define APFS_TESTS_CMOCKA_ALL_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#endif
