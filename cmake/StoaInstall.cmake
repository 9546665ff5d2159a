# `cmake --install` gives a tree that find_package(Stoa) finds.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS stoa_library stoa_program stoa_public EXPORT StoaTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS stoa_sentencepiece LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/src/stoa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h"
        PATTERN gloo_forward EXCLUDE)
install(EXPORT StoaTargets NAMESPACE Stoa:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Stoa)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/StoaConfig.cmake.in ${CMAKE_BINARY_DIR}/StoaConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Stoa)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/StoaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/StoaConfig.cmake ${CMAKE_BINARY_DIR}/StoaConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Stoa)
