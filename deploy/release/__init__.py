"""Writes what runs where: releases, promotions and rollbacks are commits to the overlays, and git is asked the rest."""
