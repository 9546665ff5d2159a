// Carries the precompiled headers (cmake/StoaPrecompiled.cmake).
