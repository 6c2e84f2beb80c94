"""Changes and shows what runs where: releases, promotions and rollbacks are commits to the overlays."""
